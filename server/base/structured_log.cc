#include "server/base/structured_log.h"

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "nlohmann/json.hpp"
#include "server/base/log.h"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace ess {
namespace {

constexpr char kTime[] = "%Y-%m-%dT%H:%M:%S.%e%z";
// Of the logger whose messages are the fields of a JSON object.
constexpr char kFieldsLogger[] = "fields";

std::string Dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false,
                    nlohmann::ordered_json::error_handler_t::replace);
}

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    head_.format(message, line);
    const std::string_view text(message.payload.data(), message.payload.size());
    const bool is_fields =
        std::string_view(message.logger_name.data(), message.logger_name.size()) == kFieldsLogger;
    const std::string rest = is_fields
                                 ? std::string(text)
                                 : "\"message\":" + Dump(nlohmann::ordered_json(std::string(text)));
    line.append(rest.data(), rest.data() + rest.size());
    constexpr std::string_view kEnd = "}\n";
    line.append(kEnd.data(), kEnd.data() + kEnd.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>();
  }

 private:
  spdlog::pattern_formatter head_{std::string("{\"time\":\"") + kTime + "\",\"level\":\"%l\",",
                                  spdlog::pattern_time_type::local, /*eol=*/""};
};

bool IsPlain(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '"' && c != '\\' && c != '=';
  });
}

void AppendText(const nlohmann::ordered_json& fields, std::string& text) {
  for (const auto& [name, value] : fields.items()) {
    if (value.is_object()) {
      AppendText(value, text);
      continue;
    }
    text += ' ' + name + '=';
    if (!value.is_string()) {
      text += Dump(value);
    } else if (const std::string& string = value.get_ref<const std::string&>(); IsPlain(string)) {
      text += string;
    } else {
      text += '"' + absl::Utf8SafeCEscape(string) + '"';
    }
  }
}

}  // namespace

void StartLog(LogFormat format) {
  const auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  if (format == LogFormat::kJson) {
    sink->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    sink->set_pattern(std::string(kTime) + " %l %v");
  }
  spdlog::drop_all();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("", sink));
  if (format == LogFormat::kJson) {
    spdlog::register_logger(std::make_shared<spdlog::logger>(kFieldsLogger, sink));
  }
}

void LogEvent(std::string_view event, const nlohmann::ordered_json& fields) {
  if (const std::shared_ptr<spdlog::logger> json = spdlog::get(kFieldsLogger)) {
    nlohmann::ordered_json body = {{"message", std::string(event)}};
    body.update(fields);
    const std::string text = Dump(body);
    json->info(std::string_view(text).substr(1, text.size() - 2));  // The formatter has the braces.
    return;
  }
  std::string text(event);
  AppendText(fields, text);
  spdlog::info(std::string_view(text));
}

}  // namespace ess
