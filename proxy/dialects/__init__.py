"""Wire formats.  A dialect knows the waist (`requests`, `events`), never another dialect."""
