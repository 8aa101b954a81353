"""Training and test data: language ids in every example, binarised folders, FLORES, vocabularies."""
