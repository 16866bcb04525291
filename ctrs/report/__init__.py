"""Arrays and tables become pictures and text for people."""
