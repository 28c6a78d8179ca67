// Blocks until a callback has its answer.
#pragma once

#include <functional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"

namespace ess::testing {

// `begin` sees to it that what it is given is called exactly once.
template <typename T>
absl::StatusOr<T> AwaitAnswer(
    absl::FunctionRef<void(std::function<void(absl::StatusOr<T>)> done)> begin) {
  absl::Notification answered;
  absl::StatusOr<T> answer;
  begin([&](absl::StatusOr<T> result) {
    answer = std::move(result);
    answered.Notify();
  });
  answered.WaitForNotification();
  return answer;
}

}  // namespace ess::testing
