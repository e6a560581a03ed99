"""What is remembered: actions and what they led to, activations, the teacher's answers."""
