"""Any parallel text as data to train on: found in folders, filtered, kept apart from held-out text, binarised."""
