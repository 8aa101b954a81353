"""The fairseq task. fairseq imports every file in this folder when it imports the user-dir."""
