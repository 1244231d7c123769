"""What the stages share. Not public: plugins get what they need as arguments."""
