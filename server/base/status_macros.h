// ESS_RETURN_IF_ERROR and ESS_ASSIGN_OR_RETURN: early return of a Status. Abseil 20220623 has none.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ESS_RETURN_IF_ERROR(expression)      \
  do {                                       \
    absl::Status ess_status = (expression);  \
    if (!ess_status.ok()) return ess_status; \
  } while (false)

#define ESS_STATUS_CONCAT_INNER(a, b) a##b
#define ESS_STATUS_CONCAT(a, b) ESS_STATUS_CONCAT_INNER(a, b)

// ESS_ASSIGN_OR_RETURN(const Thing thing, MakeThing());
#define ESS_ASSIGN_OR_RETURN(declaration, expression) \
  ESS_ASSIGN_OR_RETURN_IMPL(ESS_STATUS_CONCAT(ess_status_or_, __LINE__), declaration, expression)
#define ESS_ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                      \
  if (!result.ok()) return std::move(result).status();             \
  declaration = *std::move(result)
