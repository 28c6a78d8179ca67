#include "server/app/connection_limit.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "server/base/log.h"

namespace ess {
namespace {

// Descriptors for everything but connections, beyond those in use when the server has started:
// files of models and jobs, and what libraries open.
constexpr int kOtherDescriptors = 128;

// Descriptors get the lowest number that is free: one with this number or a higher one is one too
// many.
std::atomic<int> first_refused = std::numeric_limits<int>::max();

// Of the descriptors in use, and one more.
int HighestDescriptor() {
  int highest = 0;
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return highest;
  while (const dirent* const entry = readdir(folder)) {
    highest = std::max(highest, std::atoi(entry->d_name));
  }
  closedir(folder);
  return highest;
}

// Asks for `wanted` descriptors. Returns how many the process may have.
int RaiseDescriptorLimit(int wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < static_cast<rlim_t>(wanted)) {
    rlimit raised = limit;
    raised.rlim_cur = std::min(limit.rlim_max, static_cast<rlim_t>(wanted));
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return static_cast<int>(std::min(limit.rlim_cur, static_cast<rlim_t>(wanted)));
}

void LogRefusal() {
  static std::atomic<int64_t> refused = 0;
  // The 1st, 2nd, 4th, ...: a flood of connections is none of lines.
  const int64_t count = ++refused;
  if ((count & (count - 1)) == 0) {
    ESS_LOG(warn, "{} connections were refused until now; the limit is max_connections", count);
  }
}

}  // namespace

void LimitConnections(int max_connections) {
  const int others = HighestDescriptor() + kOtherDescriptors;
  const int allowed = RaiseDescriptorLimit(others + max_connections);
  if (allowed < others + max_connections) {
    ESS_LOG(warn,
            "max_connections: {}, but the process may have {} descriptors; it takes fewer "
            "connections (LimitNOFILE, ulimit -n)",
            max_connections, allowed);
  }
  // The last ones stay free for files.
  first_refused = std::min(others + max_connections, allowed - std::min(64, allowed / 4));
}

}  // namespace ess

// gRPC finds this one before the C library's. It tries again after EINTR, and waits for the next
// connection when there is none.
extern "C" int accept4(int listener, sockaddr* address, socklen_t* size, int flags) {
  using Accept = int (*)(int, sockaddr*, socklen_t*, int);
  static const Accept accept_next = reinterpret_cast<Accept>(dlsym(RTLD_NEXT, "accept4"));
  const int connection = accept_next(listener, address, size, flags);
  if (connection < ess::first_refused) return connection;
  close(connection);
  ess::LogRefusal();
  errno = EINTR;
  return -1;
}
