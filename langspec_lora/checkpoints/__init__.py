"""Reads fairseq's checkpoint files safely, checks them, completes them with their base, and writes them.

Reading:

- ``safe_pickle``: reading pickles without running anything in them
- ``zip_records``: the checksums of a file
- ``outline``: names, shapes and arguments of a file, without running anything in it
- ``loading``: the whole file, as torch loads it
- ``stored_model``: adapters, base and settings of a checkpoint or an adapter folder
- ``arguments``: what the training arguments in a checkpoint say about its model
- ``outdated_arguments``: training arguments that the installed fairseq no longer accepts
- ``token_order``: the order of the language tokens that fairseq appended to the dictionary
- ``vocabulary_files``: the dictionary and the SentencePiece model of a checkpoint

The base model:

- ``base``: checkpoints that were saved without their base
- ``fingerprint``: which base the adapters were trained on

Checks before training or generation:

- ``starting_point``: the file that a training starts from
- ``compatibility``: whether a checkpoint fits the model of a command
- ``argument_checks``: whether model arguments are valid, and the same in a checkpoint and a command
- ``resuming``: whether a training can continue with a checkpoint's optimizer
- ``optimizer_state``: whether the optimizer's state in a checkpoint is valid

Writing:

- ``assembly``: a checkpoint made from a base model and adapters
- ``saving``: what fairseq-train saves, and how
"""
