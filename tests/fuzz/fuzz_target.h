// A fuzz target: one program that reads one kind of input from people we do not trust.
//
// With libFuzzer (preset `fuzz`) new inputs come from what the code does with the old ones; without
// it (mutations_main.cc, any compiler) from a fixed number of seeded changes to the seeds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace ess::fuzz {

// Good inputs, to start from.
std::vector<std::string> Seeds();

// Ends the process when a reader's answer is not what it may answer: a code out of `allowed`, or a
// message that is too long to be sent.
void CheckAnswer(const absl::Status& status, std::initializer_list<absl::StatusCode> allowed);

}  // namespace ess::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
