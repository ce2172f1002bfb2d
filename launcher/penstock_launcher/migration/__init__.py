"""`penstock migrate`: what others were told, in the words that Penstock is told."""
