"""The command line as people and scripts use it, over a real OpenBao and the stand-in of OpenAI."""
