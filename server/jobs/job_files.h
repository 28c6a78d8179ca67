// The files of one job: state_dir/jobs/ID/.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"

namespace ess::jobs {

struct JobFiles {
  std::filesystem::path folder;

  // What was submitted, as JSON lines.
  std::filesystem::path prompts() const { return folder / "prompts.jsonl"; }
  // Made by tokenizing: int64 ids of all prompts, one after the other; int64 lengths; and the
  // manifest's list of prompts.
  std::filesystem::path tokens() const { return folder / "tokens.bin"; }
  std::filesystem::path lengths() const { return folder / "lengths.bin"; }
  std::filesystem::path prompts_json() const { return folder / "prompts.json"; }
  // Written last of the preparation: when it is there, the others are whole.
  std::filesystem::path plan() const { return folder / "plan.json"; }
  // The result while it is made, and when it is whole.
  std::filesystem::path working() const { return folder / "working.safetensors"; }
  std::filesystem::path result() const { return folder / "result.safetensors"; }
  // Times, restarts, machine: what differs between runs of the same work.
  std::filesystem::path run() const { return folder / "run.json"; }

  // Removes everything but result() and run().
  void RemoveWork() const;
  // Of the files that are there.
  int64_t Bytes() const;
};

}  // namespace ess::jobs
