package node

// Fail does to a node what a disk error does.
func (n *Node) Fail(err error) { n.fail(err) }
