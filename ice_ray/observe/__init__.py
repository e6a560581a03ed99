"""What a person sees: TensorBoard, lines on the terminal, the table of trials."""
