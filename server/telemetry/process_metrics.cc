#include "server/telemetry/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace ess::telemetry {
namespace {

struct ProcStat {
  double cpu_seconds = 0;
  double start_ticks = 0;
  double virtual_bytes = 0;
  double resident_bytes = 0;
};

// Fields 14, 15, 22, 23, 24 of /proc/self/stat (proc(5)), counted from behind the command's ')'.
ProcStat ReadProcStat() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::vector<double> fields;
  const size_t end_of_command = line.rfind(')');
  if (end_of_command == std::string::npos || end_of_command + 4 > line.size()) return {};
  const char* cursor = line.c_str() + end_of_command + 4;  // Behind ") S ", at field 4.
  for (char* end = nullptr; fields.size() < 21; cursor = end) {
    const double value = std::strtod(cursor, &end);
    if (end == cursor) return {};
    fields.push_back(value);
  }
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double page = static_cast<double>(sysconf(_SC_PAGESIZE));
  return {.cpu_seconds = (fields[10] + fields[11]) / ticks,
          .start_ticks = fields[18] / ticks,
          .virtual_bytes = fields[19],
          .resident_bytes = fields[20] * page};
}

double BootTimeSeconds() {
  std::ifstream file("/proc/stat");
  std::string key;
  while (file >> key) {
    double value = 0;
    if (key == "btime" && file >> value) return value;
    file.ignore(1 << 16, '\n');
  }
  return 0;
}

double OpenFileDescriptors() {
  double count = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    static_cast<void>(entry);
    ++count;
  }
  return count;
}

class ProcessMetrics : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    const ProcStat stat = ReadProcStat();
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    std::vector<prometheus::MetricFamily> families;
    auto add = [&families](const char* name, const char* help, prometheus::MetricType type,
                           double value) {
      prometheus::ClientMetric metric;
      if (type == prometheus::MetricType::Counter) {
        metric.counter.value = value;
      } else {
        metric.gauge.value = value;
      }
      families.push_back({name, help, type, {metric}});
    };
    using Type = prometheus::MetricType;
    add("process_start_time_seconds", "Start of the process since the Unix epoch", Type::Gauge,
        boot_time_ + stat.start_ticks);
    add("process_cpu_seconds_total", "User and system CPU time", Type::Counter, stat.cpu_seconds);
    add("process_resident_memory_bytes", "Resident memory", Type::Gauge, stat.resident_bytes);
    add("process_virtual_memory_bytes", "Virtual memory", Type::Gauge, stat.virtual_bytes);
    add("process_open_fds", "Open file descriptors", Type::Gauge, OpenFileDescriptors());
    add("process_max_fds", "Limit of open file descriptors", Type::Gauge,
        static_cast<double>(files.rlim_cur));
    return families;
  }

 private:
  const double boot_time_ = BootTimeSeconds();
};

}  // namespace

std::shared_ptr<prometheus::Collectable> MakeProcessMetrics() {
  return std::make_shared<ProcessMetrics>();
}

long long PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<long long>(usage.ru_maxrss) * 1024;
}

}  // namespace ess::telemetry
