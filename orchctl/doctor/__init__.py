"""`orchctl doctor`: facts about a host, gathered at the edge, and what they mean, judged purely."""
