"""From the name that a client asks for to the deployment that answers."""
