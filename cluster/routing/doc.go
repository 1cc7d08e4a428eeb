// Package routing brings requests to the owners of aggregates, wherever in the cluster they are.
//
// # The model
//
// A [Router] asks the node that the process's map of shards names (package shardmap), and corrects the map when that
// node is not the owner. The map is a hint: whether it is the owner, a node decides by itself before it answers.
// Where nothing is known, or the owner is gone, the router asks the node that should own the shard by placement: that
// node has it, or is about to take it and lets requests wait.
//
// A request has one deadline and is tried until then:
//
//   - What was certainly not executed is tried again: at once where a later row points somewhere else,
//     else when something is heard of the shard or of members, or after a pause that grows, with jitter,
//     since gossip may be lost.
//   - A command of unknown outcome is sent again as it is. Its id and fingerprint make that safe: if it
//     was executed, the answer is the first outcome. From then on nothing but such an answer is certain,
//     so an error of a later attempt does not hide that the first may have been executed.
//   - All else is the answer.
//
// The node in the same process is asked without the network.
package routing
