// The standard process_* metrics, read from /proc at each scrape.
#pragma once

#include <memory>

namespace prometheus {
class Collectable;
}

namespace ess::telemetry {

// process_start_time_seconds, process_cpu_seconds_total, process_resident_memory_bytes,
// process_virtual_memory_bytes, process_open_fds, process_max_fds.
std::shared_ptr<prometheus::Collectable> MakeProcessMetrics();

// Largest resident memory of this process so far.
long long PeakResidentBytes();

}  // namespace ess::telemetry
