"""Messages of every kind (text, action, button, attachments) with their details."""
