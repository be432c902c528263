"""Small stand-ins for tests; nothing else imports this room."""
