"""The command line: ``main.py`` runs a command, ``commands.py`` lists them, and each has a file of its name."""
