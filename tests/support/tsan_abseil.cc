// Tells ThreadSanitizer what absl::Mutex does, and the count of those who share an absl::Status:
// the distribution's Abseil is not instrumented, so without this each use of a lock looks like a
// race, and so does the end of a status that two threads had. Part of the tests of the tsan preset
// only.
//
// These definitions come before the shared library's and call them. Conditions are evaluated inside
// the library by any thread that holds the lock; their reads are left out of the check.
#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "absl/base/options.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#define ESS_STRING_INNER(text) #text
#define ESS_STRING(text) ESS_STRING_INNER(text)

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

// The library's member function, by the mangled name of what follows "absl::[inline namespace]::".
template <typename Function>
Function* InLibrary(const char* mangled) {
  std::string symbol = "_ZN4absl";
#if ABSL_OPTION_USE_INLINE_NAMESPACE
  const std::string name = ESS_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  symbol += std::to_string(name.size()) + name;
#endif
  void* found = dlsym(RTLD_NEXT, (symbol + mangled).c_str());
  if (found == nullptr) std::abort();
  return reinterpret_cast<Function*>(found);
}

// While it lives, reads of this thread are not checked.
struct IgnoreReads {
  IgnoreReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~IgnoreReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static auto* const lock = InLibrary<void(Mutex*)>("5Mutex4LockEv");
  lock(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static auto* const unlock = InLibrary<void(Mutex*)>("5Mutex6UnlockEv");
  __tsan_release(this);
  const IgnoreReads ignore;
  unlock(this);
}

void Mutex::Await(const Condition& condition) {
  static auto* const await =
      InLibrary<void(Mutex*, const Condition&)>("5Mutex5AwaitERKNS0_9ConditionE");
  __tsan_release(this);
  {
    const IgnoreReads ignore;
    await(this, condition);
  }
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const await = InLibrary<bool(Mutex*, const Condition&, Duration)>(
      "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  __tsan_release(this);
  bool met = false;
  {
    const IgnoreReads ignore;
    met = await(this, condition, timeout);
  }
  __tsan_acquire(this);
  return met;
}

// What other threads did with the status comes before its end in the last one.
void Status::UnrefNonInlined(uintptr_t rep) {
  static auto* const unref = InLibrary<void(uintptr_t)>("6Status15UnrefNonInlinedEm");
  __tsan_release(reinterpret_cast<void*>(rep));
  __tsan_acquire(reinterpret_cast<void*>(rep));
  unref(rep);
}

ABSL_NAMESPACE_END
}  // namespace absl
