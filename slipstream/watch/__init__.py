"""The live view of a deployment, in a terminal or in a browser. It reads, and changes nothing."""
