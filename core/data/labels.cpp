#include "core/data/labels.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

std::vector<double> row_labels(const std::string& metadata, const std::vector<std::string>& names) {
  const nlohmann::json row = nlohmann::json::parse(metadata, nullptr, false);
  PRAETOR_CHECK(row.is_object(), "the other fields of a row are no JSON object");
  std::vector<double> out;
  for (const std::string& name : names) {
    const auto field = row.find(name);
    out.push_back(std::numeric_limits<double>::quiet_NaN());
    if (field == row.end() || field->is_null()) continue;
    if (field->is_number()) out.back() = field->get<double>();
    if (!std::isfinite(out.back())) {
      throw DataError("\"",
                      printable(name),
                      "\" is ",
                      field->is_number() ? "not finite" : field->type_name(),
                      "; a number is wanted, or nothing where there is no label");
    }
  }
  return out;
}

}  // namespace praetor
