#include "server/jobs/python_json.h"

#include <charconv>
#include <cmath>

#include "fmt/format.h"

namespace ess::jobs {

void AppendJsonString(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void AppendJsonNumber(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  // Python changes to exponents below 1e-4 and from 1e16 on.
  const double magnitude = std::abs(value);
  const bool fixed = value == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  char digits[40];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific);
  const std::string_view text(digits, end.ptr - digits);
  out += text;
  if (fixed && text.find('.') == std::string_view::npos) out += ".0";
}

}  // namespace ess::jobs
