"""The member states of the United Nations and Vatican City."""

from __future__ import annotations

from dataclasses import dataclass

from .document import table


@dataclass(frozen=True, slots=True)
class Country:
    """One row; `name` has its article, as in "the Netherlands"."""

    name: str
    capital: str
    continent: str
    currency: str
    language: str


_TABLE = """
Afghanistan|Kabul|Asia|Afghan afghani|Pashto
Albania|Tirana|Europe|Albanian lek|Albanian
Algeria|Algiers|Africa|Algerian dinar|Arabic
Andorra|Andorra la Vella|Europe|euro|Catalan
Angola|Luanda|Africa|Angolan kwanza|Portuguese
Antigua and Barbuda|Saint John's|North America|East Caribbean dollar|English
Argentina|Buenos Aires|South America|Argentine peso|Spanish
Armenia|Yerevan|Asia|Armenian dram|Armenian
Australia|Canberra|Oceania|Australian dollar|English
Austria|Vienna|Europe|euro|German
Azerbaijan|Baku|Asia|Azerbaijani manat|Azerbaijani
the Bahamas|Nassau|North America|Bahamian dollar|English
Bahrain|Manama|Asia|Bahraini dinar|Arabic
Bangladesh|Dhaka|Asia|Bangladeshi taka|Bengali
Barbados|Bridgetown|North America|Barbadian dollar|English
Belarus|Minsk|Europe|Belarusian rouble|Belarusian
Belgium|Brussels|Europe|euro|Dutch
Belize|Belmopan|North America|Belize dollar|English
Benin|Porto-Novo|Africa|West African franc|French
Bhutan|Thimphu|Asia|Bhutanese ngultrum|Dzongkha
Bolivia|Sucre|South America|Bolivian boliviano|Spanish
Bosnia and Herzegovina|Sarajevo|Europe|convertible mark|Bosnian
Botswana|Gaborone|Africa|Botswana pula|English
Brazil|Brasilia|South America|Brazilian real|Portuguese
Brunei|Bandar Seri Begawan|Asia|Brunei dollar|Malay
Bulgaria|Sofia|Europe|euro|Bulgarian
Burkina Faso|Ouagadougou|Africa|West African franc|French
Burundi|Gitega|Africa|Burundian franc|Kirundi
Cambodia|Phnom Penh|Asia|Cambodian riel|Khmer
Cameroon|Yaounde|Africa|Central African franc|French
Canada|Ottawa|North America|Canadian dollar|English
Cape Verde|Praia|Africa|Cape Verdean escudo|Portuguese
the Central African Republic|Bangui|Africa|Central African franc|French
Chad|N'Djamena|Africa|Central African franc|French
Chile|Santiago|South America|Chilean peso|Spanish
China|Beijing|Asia|Chinese yuan|Chinese
Colombia|Bogota|South America|Colombian peso|Spanish
the Comoros|Moroni|Africa|Comorian franc|Comorian
the Republic of the Congo|Brazzaville|Africa|Central African franc|French
the Democratic Republic of the Congo|Kinshasa|Africa|Congolese franc|French
Costa Rica|San Jose|North America|Costa Rican colon|Spanish
Croatia|Zagreb|Europe|euro|Croatian
Cuba|Havana|North America|Cuban peso|Spanish
Cyprus|Nicosia|Europe|euro|Greek
Czechia|Prague|Europe|Czech koruna|Czech
Denmark|Copenhagen|Europe|Danish krone|Danish
Djibouti|Djibouti City|Africa|Djiboutian franc|French
Dominica|Roseau|North America|East Caribbean dollar|English
the Dominican Republic|Santo Domingo|North America|Dominican peso|Spanish
Ecuador|Quito|South America|United States dollar|Spanish
Egypt|Cairo|Africa|Egyptian pound|Arabic
El Salvador|San Salvador|North America|United States dollar|Spanish
Equatorial Guinea|Malabo|Africa|Central African franc|Spanish
Eritrea|Asmara|Africa|Eritrean nakfa|Tigrinya
Estonia|Tallinn|Europe|euro|Estonian
Eswatini|Mbabane|Africa|Swazi lilangeni|Swazi
Ethiopia|Addis Ababa|Africa|Ethiopian birr|Amharic
Fiji|Suva|Oceania|Fijian dollar|English
Finland|Helsinki|Europe|euro|Finnish
France|Paris|Europe|euro|French
Gabon|Libreville|Africa|Central African franc|French
the Gambia|Banjul|Africa|Gambian dalasi|English
Georgia|Tbilisi|Asia|Georgian lari|Georgian
Germany|Berlin|Europe|euro|German
Ghana|Accra|Africa|Ghanaian cedi|English
Greece|Athens|Europe|euro|Greek
Grenada|Saint George's|North America|East Caribbean dollar|English
Guatemala|Guatemala City|North America|Guatemalan quetzal|Spanish
Guinea|Conakry|Africa|Guinean franc|French
Guinea-Bissau|Bissau|Africa|West African franc|Portuguese
Guyana|Georgetown|South America|Guyanese dollar|English
Haiti|Port-au-Prince|North America|Haitian gourde|Haitian Creole
Honduras|Tegucigalpa|North America|Honduran lempira|Spanish
Hungary|Budapest|Europe|Hungarian forint|Hungarian
Iceland|Reykjavik|Europe|Icelandic krona|Icelandic
India|New Delhi|Asia|Indian rupee|Hindi
Indonesia|Jakarta|Asia|Indonesian rupiah|Indonesian
Iran|Tehran|Asia|Iranian rial|Persian
Iraq|Baghdad|Asia|Iraqi dinar|Arabic
Ireland|Dublin|Europe|euro|English
Israel|Jerusalem|Asia|Israeli shekel|Hebrew
Italy|Rome|Europe|euro|Italian
Ivory Coast|Yamoussoukro|Africa|West African franc|French
Jamaica|Kingston|North America|Jamaican dollar|English
Japan|Tokyo|Asia|Japanese yen|Japanese
Jordan|Amman|Asia|Jordanian dinar|Arabic
Kazakhstan|Astana|Asia|Kazakhstani tenge|Kazakh
Kenya|Nairobi|Africa|Kenyan shilling|Swahili
Kiribati|Tarawa|Oceania|Australian dollar|Gilbertese
Kuwait|Kuwait City|Asia|Kuwaiti dinar|Arabic
Kyrgyzstan|Bishkek|Asia|Kyrgyz som|Kyrgyz
Laos|Vientiane|Asia|Lao kip|Lao
Latvia|Riga|Europe|euro|Latvian
Lebanon|Beirut|Asia|Lebanese pound|Arabic
Lesotho|Maseru|Africa|Lesotho loti|Sesotho
Liberia|Monrovia|Africa|Liberian dollar|English
Libya|Tripoli|Africa|Libyan dinar|Arabic
Liechtenstein|Vaduz|Europe|Swiss franc|German
Lithuania|Vilnius|Europe|euro|Lithuanian
Luxembourg|Luxembourg City|Europe|euro|Luxembourgish
Madagascar|Antananarivo|Africa|Malagasy ariary|Malagasy
Malawi|Lilongwe|Africa|Malawian kwacha|English
Malaysia|Kuala Lumpur|Asia|Malaysian ringgit|Malay
the Maldives|Male|Asia|Maldivian rufiyaa|Dhivehi
Mali|Bamako|Africa|West African franc|Bambara
Malta|Valletta|Europe|euro|Maltese
the Marshall Islands|Majuro|Oceania|United States dollar|Marshallese
Mauritania|Nouakchott|Africa|Mauritanian ouguiya|Arabic
Mauritius|Port Louis|Africa|Mauritian rupee|English
Mexico|Mexico City|North America|Mexican peso|Spanish
Micronesia|Palikir|Oceania|United States dollar|English
Moldova|Chisinau|Europe|Moldovan leu|Romanian
Monaco|Monaco|Europe|euro|French
Mongolia|Ulaanbaatar|Asia|Mongolian tugrik|Mongolian
Montenegro|Podgorica|Europe|euro|Montenegrin
Morocco|Rabat|Africa|Moroccan dirham|Arabic
Mozambique|Maputo|Africa|Mozambican metical|Portuguese
Myanmar|Naypyidaw|Asia|Burmese kyat|Burmese
Namibia|Windhoek|Africa|Namibian dollar|English
Nauru|Yaren|Oceania|Australian dollar|Nauruan
Nepal|Kathmandu|Asia|Nepalese rupee|Nepali
the Netherlands|Amsterdam|Europe|euro|Dutch
New Zealand|Wellington|Oceania|New Zealand dollar|English
Nicaragua|Managua|North America|Nicaraguan cordoba|Spanish
Niger|Niamey|Africa|West African franc|Hausa
Nigeria|Abuja|Africa|Nigerian naira|English
North Korea|Pyongyang|Asia|North Korean won|Korean
North Macedonia|Skopje|Europe|Macedonian denar|Macedonian
Norway|Oslo|Europe|Norwegian krone|Norwegian
Oman|Muscat|Asia|Omani rial|Arabic
Pakistan|Islamabad|Asia|Pakistani rupee|Urdu
Palau|Ngerulmud|Oceania|United States dollar|Palauan
Panama|Panama City|North America|Panamanian balboa|Spanish
Papua New Guinea|Port Moresby|Oceania|Papua New Guinean kina|Tok Pisin
Paraguay|Asuncion|South America|Paraguayan guarani|Spanish
Peru|Lima|South America|Peruvian sol|Spanish
the Philippines|Manila|Asia|Philippine peso|Filipino
Poland|Warsaw|Europe|Polish zloty|Polish
Portugal|Lisbon|Europe|euro|Portuguese
Qatar|Doha|Asia|Qatari riyal|Arabic
Romania|Bucharest|Europe|Romanian leu|Romanian
Russia|Moscow|Europe|Russian rouble|Russian
Rwanda|Kigali|Africa|Rwandan franc|Kinyarwanda
Saint Kitts and Nevis|Basseterre|North America|East Caribbean dollar|English
Saint Lucia|Castries|North America|East Caribbean dollar|English
Saint Vincent and the Grenadines|Kingstown|North America|East Caribbean dollar|English
Samoa|Apia|Oceania|Samoan tala|Samoan
San Marino|San Marino|Europe|euro|Italian
Sao Tome and Principe|Sao Tome|Africa|Sao Tome dobra|Portuguese
Saudi Arabia|Riyadh|Asia|Saudi riyal|Arabic
Senegal|Dakar|Africa|West African franc|French
Serbia|Belgrade|Europe|Serbian dinar|Serbian
Seychelles|Victoria|Africa|Seychellois rupee|Seychellois Creole
Sierra Leone|Freetown|Africa|Sierra Leonean leone|English
Singapore|Singapore|Asia|Singapore dollar|English
Slovakia|Bratislava|Europe|euro|Slovak
Slovenia|Ljubljana|Europe|euro|Slovene
the Solomon Islands|Honiara|Oceania|Solomon Islands dollar|English
Somalia|Mogadishu|Africa|Somali shilling|Somali
South Africa|Pretoria|Africa|South African rand|Zulu
South Korea|Seoul|Asia|South Korean won|Korean
South Sudan|Juba|Africa|South Sudanese pound|English
Spain|Madrid|Europe|euro|Spanish
Sri Lanka|Sri Jayawardenepura Kotte|Asia|Sri Lankan rupee|Sinhala
Sudan|Khartoum|Africa|Sudanese pound|Arabic
Suriname|Paramaribo|South America|Surinamese dollar|Dutch
Sweden|Stockholm|Europe|Swedish krona|Swedish
Switzerland|Bern|Europe|Swiss franc|German
Syria|Damascus|Asia|Syrian pound|Arabic
Tajikistan|Dushanbe|Asia|Tajikistani somoni|Tajik
Tanzania|Dodoma|Africa|Tanzanian shilling|Swahili
Thailand|Bangkok|Asia|Thai baht|Thai
Timor-Leste|Dili|Asia|United States dollar|Tetum
Togo|Lome|Africa|West African franc|French
Tonga|Nuku'alofa|Oceania|Tongan pa'anga|Tongan
Trinidad and Tobago|Port of Spain|North America|Trinidad and Tobago dollar|English
Tunisia|Tunis|Africa|Tunisian dinar|Arabic
Turkey|Ankara|Asia|Turkish lira|Turkish
Turkmenistan|Ashgabat|Asia|Turkmenistani manat|Turkmen
Tuvalu|Funafuti|Oceania|Australian dollar|Tuvaluan
Uganda|Kampala|Africa|Ugandan shilling|English
Ukraine|Kyiv|Europe|Ukrainian hryvnia|Ukrainian
the United Arab Emirates|Abu Dhabi|Asia|Emirati dirham|Arabic
the United Kingdom|London|Europe|pound sterling|English
the United States|Washington, D.C.|North America|United States dollar|English
Uruguay|Montevideo|South America|Uruguayan peso|Spanish
Uzbekistan|Tashkent|Asia|Uzbekistani som|Uzbek
Vanuatu|Port Vila|Oceania|Vanuatu vatu|Bislama
Vatican City|Vatican City|Europe|euro|Italian
Venezuela|Caracas|South America|Venezuelan bolivar|Spanish
Vietnam|Hanoi|Asia|Vietnamese dong|Vietnamese
Yemen|Sana'a|Asia|Yemeni rial|Arabic
Zambia|Lusaka|Africa|Zambian kwacha|English
Zimbabwe|Harare|Africa|Zimbabwe gold|English
"""

COUNTRIES = tuple(Country(*row) for row in table(_TABLE))
