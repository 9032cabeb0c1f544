"""What the engine talks to: stores, issuers, and the Pulumi resources over them."""
