"""Tables that other tables need beside them."""

import hashlib

PROVIDER = '[[providers]]\nname = "there"\nkind = "openai"\nbase_url = "http://127.0.0.1:9"\n'
DEMO = '[[providers]]\nname = "demo"\nkind = "demo"\n'
KEY = '[[keys]]\nname = "laptop"\nkey = "a-fine-key"\n'
SECRET = "Zq81-very-secret-7f"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
