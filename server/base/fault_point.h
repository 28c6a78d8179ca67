// Named points where a test makes the server slow, leaky or stand still, and counts what it begins.
//
//   ESS_FAULT_POINT("forward");
//
// is nothing but in the program `ess_server_faults`, which compiles the files with such points once
// more, with ESS_FAULT_POINTS defined; no other program has any of this. There the environment says
// what happens at a point:
//
//   ESS_FAULTS="forward=delay:200ms,ess=hold:/tmp/x/hold,send=leak:64KiB"
//
//   delay:TIME  waits that long, each time
//   hold:FILE   waits for as long as the file is there; hold:FILE@3 only from the 4th time on
//   leak:SIZE   touches that much memory, in KiB, and never gives it back
//
// ESS_FAULT_TRACE=FILE gains a line with the point's name, each time one is reached, before it
// waits: the work that was begun, in order.
//
// Points: queued (a request gets its turn), tokenize (a prompt), forward (a layer of a prompt), ess
// (a task of a head or of a group of channels), send (a message); and those of a job's life,
// job_... (server/jobs, in the order of tests/faults/job_server.py).
#pragma once

#ifdef ESS_FAULT_POINTS
namespace ess {
// Thread-safe. Ends the process when the environment does not parse.
void ReachFaultPoint(const char* name);
}  // namespace ess
#define ESS_FAULT_POINT(name) ::ess::ReachFaultPoint(name)
#else
#define ESS_FAULT_POINT(name) static_cast<void>(0)
#endif
