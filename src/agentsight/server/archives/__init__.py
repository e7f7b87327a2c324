"""All files of a conversation in one ZIP, made while it is sent."""
