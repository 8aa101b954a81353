"""The fairseq task. fairseq imports every file of this folder when it imports the user-dir."""
