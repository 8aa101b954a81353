"""What language-specific adapters cost, measured against one shared adapter and a loop over languages."""
