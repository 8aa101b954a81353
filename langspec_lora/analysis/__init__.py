"""What a checkpoint consists of: its parameters, and what pruning has left of them."""
