"""What serves HTTP and text: in the scheduling process, or in processes in front of it."""
