"""One file for each verb: its options, its one request, its words. Only the verb that is asked for is ever loaded."""
