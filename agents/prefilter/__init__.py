"""Rules that filter out conversations of too little value for a call."""
