"""What others would write for the sequence stage's job, each as a program of its own: `PROGRAM BROKER GROUP TOPIC STATE_DIR`."""
