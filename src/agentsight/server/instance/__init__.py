"""Which instance this is: its uid, and the bond between its database and its store of bytes."""
