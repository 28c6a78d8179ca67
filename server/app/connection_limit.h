// How many connections the process holds at the same time.
#pragma once

namespace ess {

// From now on, a connection beyond about `max_connections` is closed as soon as it is accepted, and
// logged. Raises the process's limit on descriptors where it may; where that stays too low, fewer
// connections are taken. Call it when the ports are open.
//
// gRPC 1.51 has no such limit, and does not survive without one: when a process has no descriptors
// left, its listener gives up for good. So this file puts itself between gRPC and accept4().
void LimitConnections(int max_connections);

}  // namespace ess
