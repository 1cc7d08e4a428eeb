// Package dashboard is the web page of a gateway's admin port: the cluster at a glance, the history of
// any customer, and their devices.
//
// # The model
//
// Every page is HTML made on the server, complete without a script, and every view has an address that
// can be passed on. Small ES modules make it lively: they fetch the same pages again, in part, and lay
// what changed into the one that is shown. There is no build step and nothing is loaded from elsewhere.
//
//	/dashboard/                 the cluster: what is wrong, nodes, shards, charts, what happened
//	/dashboard/customers        customers with a history
//	/dashboard/customer         one of them at any moment of the past: timeline, state, why, what if
//	/dashboard/devices          their devices, and the removal of one
//
// The dashboard is a client of the API like any other; it has no way of its own to a customer. What it
// shows of the cluster comes from a [Cluster], which a sampler asks every second while somebody looks,
// and now and then while nobody does, so that the charts of the last minutes are present when they are
// needed. All who look share one sampling.
//
// # Who may look
//
// Without a token the dashboard answers only on a loopback address, and only to requests that name a
// local host, so that no page of another site can reach it under a name of its own. With a token it
// asks for it once and then knows the browser by a cookie for twelve hours. Nothing that changes
// anything is a GET, cross-origin requests are turned away, and the Content-Security-Policy allows the
// dashboard's own files and nothing inline.
package dashboard
