"""Foreign clients that drive the server: zkCli, the C client, Node.js, kazoo, Curator."""
