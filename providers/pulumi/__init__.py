"""What Keyturn adds to Pulumi: dynamic resources over rotation.provision."""
