"""The fairseq model and its architectures. fairseq imports every file of this folder when it imports the user-dir."""
