//! One token that can be asked for: its address, its form, and the challenge that leads others to it.

use url::Url;
use url::form_urlencoded::Serializer;

use super::bearer::BearerChallenge;
use super::reach::Reach;

/// What token services are told about who refreshes an identity token.
const CLIENT: &str = "tidehold";

/// One token that can be asked for. Two askers with equal grants and logins can share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Grant {
    /// The token service's address, as it was named.
    pub(super) realm: Url,
    /// The registry, as the token service knows it.
    pub(super) service: Option<String>,
    /// What the token is for; several are parted by blanks. Empty: for nothing, but to show who asks.
    pub(super) scope: String,
    /// How far asking it may go.
    pub(super) reach: Reach,
}

impl Grant {
    /// The address to GET it from (distribution's token specification, "Requesting a Token").
    pub(super) fn address(&self) -> Url {
        let mut address = self.realm.clone();
        {
            let mut query = address.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.scope.split_ascii_whitespace() {
                query.append_pair("scope", scope);
            }
        }
        address
    }

    /// The form to POST to the realm for it, given an identity token (distribution's OAuth2 specification).
    pub(super) fn form(&self, identity_token: &str) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        if let Some(service) = &self.service {
            form.append_pair("service", service);
        }
        form.append_pair("client_id", CLIENT);
        if !self.scope.is_empty() {
            form.append_pair("scope", &self.scope);
        }
        form.append_pair("refresh_token", identity_token);
        form.finish()
    }

    /// How a client is told to get one for itself.
    pub(super) fn challenge(&self) -> Option<BearerChallenge> {
        BearerChallenge::new(&self.realm, self.service.as_deref(), Some(&self.scope))
    }
}
