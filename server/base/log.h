// Logging and invariants. ESS_LOG lines go to standard error; ESS_CHECK ends the process, for
// broken invariants only, never for bad input.
#pragma once

#include <cstdlib>

#include "spdlog/spdlog.h"

// ESS_LOG(info, "loaded {} in {:.2f} s", name, seconds): levels trace, debug, info, warn, error.
#define ESS_LOG(level, ...) ::spdlog::level(__VA_ARGS__)

#define ESS_CHECK(condition)                                                         \
  do {                                                                               \
    if (!(condition)) [[unlikely]] {                                                 \
      ::spdlog::critical("{}:{}: check failed: {}", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)
