"""Text, tokenizer, training and evaluation of the model that ships with the launcher."""
