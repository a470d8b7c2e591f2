//! `[registry]`: how to reach the schema registry, if there is one.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Field, Millis, Secret, Section, ServerUrl};

/// How to reach the schema registry. Without a URL there is none: events carry their schema's fingerprint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    pub url: Option<ServerUrl>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub timeout_ms: Millis<100, 60_000>,
    pub register: bool,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            url: None,
            user: None,
            password: None,
            password_file: None,
            ca_file: None,
            timeout_ms: Millis::of(5_000),
            register: true,
        }
    }
}

impl Section for Registry {
    const NAME: &'static str = "registry";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("url", &self.url, "the schema registry, in Confluent's interface; none if left out"),
            Field::of("user", &self.user, "the user that logs in, if the registry requires a login"),
            Field::of("password", &self.password, "the user's password"),
            Field::of(
                "password_file",
                &self.password_file,
                "file that holds the user's password; read when a client is made",
            ),
            Field::of(
                "ca_file",
                &self.ca_file,
                "PEM file of the authorities that sign the registry's certificate, instead of the system's",
            ),
            Field::of(
                "timeout_ms",
                &self.timeout_ms,
                "time for an answer; after it the registry counts as unavailable",
            ),
            Field::of(
                "register",
                &self.register,
                "whether a producer registers its schemas, or only looks up what somebody else registered",
            ),
        ]
    }

    fn check(&self) -> Result<(), String> {
        let Some(url) = &self.url else {
            let set = self.user.is_some()
                || self.password.is_some()
                || self.password_file.is_some()
                || self.ca_file.is_some();
            return match set {
                true => {
                    Err("registry.url is not set, and other settings of registry are; set it, or remove \
                             them"
                        .into())
                }
                false => Ok(()),
            };
        };
        if self.password.is_some() && self.password_file.is_some() {
            return Err("registry.password and registry.password_file are both set; remove one".into());
        }
        if self.user.is_none() && (self.password.is_some() || self.password_file.is_some()) {
            return Err("registry.user is not set, and a password is; set it, or remove the password".into());
        }
        if self.ca_file.is_some() && !url.https() {
            return Err(
                "registry.ca_file is set, and registry.url does not use it; choose an https URL, or \
                        remove it"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        toml::from_str::<Registry>(text).unwrap().check().err().unwrap_or_default()
    }

    #[test]
    fn the_declaration_of_the_settings_is_consistent() {
        super::super::check_declaration::<Registry>().unwrap();
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        assert_eq!(refusal(""), "");
        assert_eq!(refusal("url = 'http://r:8081'\nuser = 'u'\npassword_file = '/p'"), "");
        assert_eq!(
            refusal("user = 'u'"),
            "registry.url is not set, and other settings of registry are; set it, or remove them"
        );
        assert_eq!(
            refusal("url = 'http://r:8081'\npassword_file = '/p'"),
            "registry.user is not set, and a password is; set it, or remove the password"
        );
        assert_eq!(
            refusal("url = 'http://r:8081'\nca_file = '/c'"),
            "registry.ca_file is set, and registry.url does not use it; choose an https URL, or remove it"
        );
    }
}
