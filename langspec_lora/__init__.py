"""Language-specific LoRA for many-to-many translation in fairseq.

This folder is what ``--user-dir`` points at: fairseq imports it and then every file of its ``tasks/`` and ``models/``
folders, which register the task, the model and its architectures.
"""

__version__ = "0.1.0"
