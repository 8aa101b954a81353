"""The report on evaluations, and on what a checkpoint holds: tables, tests, pictures, one HTML page."""
